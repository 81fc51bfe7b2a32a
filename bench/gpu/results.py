"""What was found, as JSON: one file that grows, replaced as a whole, and the raw lines as they came."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gpu import Record

__all__ = ["Results", "plain"]

RAW = ("samples",)  # what stays out of the file that grows


def plain(value: Any) -> Any:
    """The same in what JSON has: numbers of NumPy as Python's, NaN and infinities as text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


class Results:
    """``gpu.json``, whole at any time, and ``raw.jsonl`` beside it."""

    def __init__(self, folder: Path, **head: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.raw = folder / "gpu.json", folder / "raw.jsonl"
        self.raw.write_text("", encoding="utf-8")
        self.content: Record = {**head, "sections": {}}
        self.save()

    def add(self, section: str, part: str, record: Record) -> None:
        """A line of a section."""
        with self.raw.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"section": section, "part": part, **plain(record)}) + "\n")
        kept = {key: value for key, value in record.items() if key not in RAW}
        if part:
            kept["part"] = part
        self.section(section)["records"].append(kept)

    def section(self, name: str) -> Record:
        """All that is known of a section."""
        entry: Record = self.content["sections"].setdefault(name, {"status": "not run", "seconds": 0.0, "records": []})
        return entry

    def records(self, *names: str) -> list[Record]:
        """The lines of these sections, or of all."""
        sections = self.content["sections"]
        return [record for name in names or sections for record in sections.get(name, {}).get("records", [])]

    def save(self) -> None:
        """Replace the file, at once."""
        temporary = self.path.with_suffix(".json.part")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(plain(self.content), file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
