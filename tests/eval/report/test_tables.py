"""Tables of the report: every model, split and k, the best in bold, and the paired tests."""

import re
from pathlib import Path

from eval.report.page import page
from eval.results import Evaluation
from helpers.made_evaluation import KS, NETWORKS, SPLITS, STRENGTHS, paired, small
from helpers.parsed_page import Parsed


def test_the_best_is_bold_and_ours_stands_out(parsed: Parsed, html: str) -> None:
    table, bold = parsed.tables[1], parsed.bold[1]
    assert table[0][:3] == ["model", "recall@20", "NDCG@20"]
    assert [row[0] for row in table[1:3]] == ["hybrid-without-lyrics", "hybrid"]
    values = [float(row[1].split()[0]) for row in table[1:]]
    assert values == sorted(values, reverse=True)
    for column in range(1, len(table[0])):
        of_column = [float(row[column].split()[0]) for row in table[1:]]
        rows = [row for row, place in bold if place == column]
        assert rows
        assert all(of_column[row - 1] == max(of_column) for row in rows)
    assert "±0.00" in table[1][1]
    rows = re.findall(r'<tr class="ours"><th[^>]*>([^<]*)', html)
    assert len(rows) >= len(SPLITS)
    assert set(rows) == {"hybrid"}


def test_every_model_split_and_k_has_its_numbers(parsed: Parsed) -> None:
    heads = [cell for table in parsed.tables for cell in table[0]]
    n_lists = len(SPLITS)
    for k in KS:
        assert heads.count(f"recall@{k}") == n_lists
        assert heads.count(f"gini@{k}") == n_lists
    names = [row[0] for table in parsed.tables for row in table[1:]]
    assert all(names.count(model) >= n_lists * len(KS) for model in STRENGTHS)
    assert all(names.count(network) == 3 for network in NETWORKS)
    assert not any("diversity" in head for head in heads), "a column of NaN"


def test_the_table_of_tests_has_ratios_and_marks_the_best(tmp_path: Path) -> None:
    best = paired(0.1, 0.05, 0.15, 0.001) | {"is_best_baseline": True, "ratio": 1.25, "ratio_ci_low": 1.1}
    both = best | {"is_best_without_features": True, "ratio_ci_high": 1.4}
    found = Parsed(page(Evaluation(small().figures, {"tests": [both, paired(0, -1, 1, 1)]}), tmp_path))
    [table] = [table for table in found.tables if "p (Holm)" in table[0]]
    row = dict(zip(table[0][-9:], table[1][-9:], strict=True))
    assert (row["ratio"], row["p (Holm)"]) == ("1.250", "0.001")
    assert table[1][table[0].index("ratio") + 1 :][:2] == ["1.100", "1.400"]
    assert row["which is"] == "best baseline, best without features"
    assert table[2][-1] == ""
