"""Figures as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of the labels that it has."""
    labels = ("method", "path", "status", "le")
    return {
        (sample.name, *(sample.labels[label] for label in labels if label in sample.labels)): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
