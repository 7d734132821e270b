"""The proto file in, the reference of the gRPC interface out: its methods, messages and fields with their comments."""

import re
from dataclasses import dataclass, field
from pathlib import Path

PROTO = Path(__file__).parents[2] / "proto" / "recsys" / "v1" / "recommender.proto"
_FIELD = re.compile(r"(?P<label>repeated |optional )?(?P<kind>[\w.]+) (?P<name>\w+) = (?P<number>\d+);")
_RPC = re.compile(r"rpc (\w+)\((stream )?(\w+)\) returns \((stream )?(\w+)\);")


@dataclass
class Message:
    """A message and its fields: name, type, number, comment."""

    name: str
    told: str
    fields: list[tuple[str, str, str, str]] = field(default_factory=list)


def markdown() -> str:
    """What the file says of itself, its methods, and its messages in their order."""
    text = PROTO.read_text(encoding="utf-8")
    head = _comment(text.partition("\nsyntax")[0].splitlines())
    methods, messages = parse(text)
    rows = ["| method | request | response | what |", "|---|---|---|---|"]
    rows += [f"| `{name}` | {_link(asked)} | {_link(answered)} | {told} |" for name, asked, answered, told in methods]
    return "\n\n".join([head, "## Methods", "\n".join(rows), "## Messages", *map(_section, messages)])


def parse(text: str) -> tuple[list[tuple[str, str, str, str]], list[Message]]:
    """The methods (name, request, response, comment) and the messages."""
    methods: list[tuple[str, str, str, str]] = []
    messages: list[Message] = []
    waiting: list[str] = []  # lines of a comment whose subject comes next
    for line in map(str.strip, text.splitlines()):
        if line.startswith("//"):
            waiting.append(line)
            continue
        told = _comment(waiting)
        if rpc := _RPC.match(line):
            stream = "stream of " if rpc[2] else ""
            methods.append((rpc[1], stream + rpc[3], ("stream of " if rpc[4] else "") + rpc[5], told))
        elif named := re.match(r"message (\w+)", line):
            messages.append(Message(named[1], told))
        elif found := _FIELD.match(line):
            kind = f"{found['label'] or ''}{found['kind']}"
            messages[-1].fields.append((found["name"], kind, found["number"], told))
        waiting = []
    return methods, messages


def _comment(lines: list[str]) -> str:
    said = [line.strip().removeprefix("//").strip() for line in lines if line.strip().startswith("//")]
    return "\n".join(said).replace("\n\n", "¶").replace("\n", " ").replace("¶", "\n\n")


def _link(name: str) -> str:
    stream, _, message = name.rpartition(" ")
    return f"{stream} [`{message}`](#{message.lower()})".strip()


def _section(message: Message) -> str:
    lines = [f"### {message.name}", message.told]
    if message.fields:
        rows = ["| field | type | number | what |", "|---|---|---|---|"]
        rows += [f"| `{name}` | {kind} | {number} | {told} |" for name, kind, number, told in message.fields]
        lines.append("\n".join(rows))
    return "\n\n".join(lines)
