"""The head of a benchmark's report: every setting of the run and of its arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .markdown import cell

_LONGEST = 600  # characters of a setting; longer word lists are cut, and say so


def settings_rows(results: Mapping) -> list[tuple[str, str]]:
    """Name and value of every setting, as cells of a table."""
    images = results["images"]
    official = images.get("official")
    counts = f"{images['listed']} listed, {images['asked']} asked for, {images['scored']} scored"
    if images["asked"] < images["listed"]:
        counts += " (a part of the split)"
    if official and images["listed"] != official:
        counts += f" – **the official split has {official}**"
    rows = [("images", counts)]
    for name, value in results["settings"].items():
        if name == "protocol":
            value = {**value, "words": _words(value)}
            rows += [(f"protocol: {field}", _setting(v)) for field, v in value.items()]
        elif name == "arms":
            rows += _arm_settings(value)
        else:
            rows.append((cell(name), _setting(value)))
    return [*rows, ("versions", cell(results["versions"])), ("commit", cell(results["commit"]))]


def _arm_settings(arms: Mapping[str, Mapping]) -> list[tuple[str, str]]:
    """What all dense maps and all final masks have in common, then what is each arm's own."""
    own = {name: {} for name in arms}
    rows = []
    for part in ("dense", "final"):
        found = {name: arm[part] for name, arm in arms.items() if arm.get(part)}
        first = next(iter(found.values()), {})
        shared = {k: v for k, v in first.items() if all(f[k] == v for f in found.values())}
        if shared:
            rows.append((f"all {part} maps", cell(shared)))
        for name, values in found.items():
            own[name] |= {k: v for k, v in values.items() if k not in shared}
    for name, arm in arms.items():
        own[name] |= {k: v for k, v in arm.items() if k not in ("dense", "final")}
        if own[name]:
            rows.append((f"arm {cell(name)}", cell(own[name])))
    return rows


def _words(protocol: Mapping) -> Mapping[str, Sequence[str]] | Sequence[Sequence[str]]:
    """The words by the name of their class."""
    names, words = protocol.get("class_names"), protocol["words"]
    return dict(zip(names, words, strict=True)) if names else words


def _setting(value: object) -> str:
    text = cell(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST].rstrip()} … ({len(text)} characters; whole in results.json)"
