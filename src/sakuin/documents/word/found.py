"""What reading a Word document meets that is to be said of it."""

from __future__ import annotations

from dataclasses import dataclass

from sakuin.documents.words import struck_out, with_and
from sakuin.quantities import counted


@dataclass
class Found:
    """Counts of what is marked in the text, and of what is left out of it."""

    struck: int = 0
    insertions: int = 0
    deletions: int = 0
    hidden: int = 0
    comments: int = 0
    prompts: int = 0
    pictures: int = 0
    charts: int = 0
    diagrams: int = 0
    equations: int = 0
    objects: int = 0
    signs: int = 0
    fields: int = 0
    parts: int = 0

    def lacks(self) -> list[str]:
        """What is not in the text."""
        named = (
            (self.pictures, "picture"),
            (self.charts, "chart"),
            (self.diagrams, "diagram"),
            (self.equations, "equation of an old format"),
            (self.objects, "embedded object"),
            (self.hidden, "hidden passage"),
            (self.signs, "sign of a font that is not known"),
            (self.fields, "field that only Word works out"),
            (self.parts, "embedded document"),
        )
        irregular = {
            "equation of an old format": "equations of an old format",
            "sign of a font that is not known": "signs of fonts that are not known",
            "field that only Word works out": "fields that only Word works out",
        }
        return [
            counted(count, thing) if count == 1 or thing not in irregular else f"{count:,} {irregular[thing]}"
            for count, thing in named
            if count
        ]

    def notes(self, name: str) -> list[str]:
        """Sentences on what was read and how; what is not in the text comes last."""
        notes = [struck_out(name, self.struck)] if self.struck else []
        if self.insertions or self.deletions:
            kept = [f"{counted(self.insertions, 'insertion')} kept"] if self.insertions else []
            kept += [f"{counted(self.deletions, 'deletion')} left out"] if self.deletions else []
            notes.append(f"{name} has tracked changes, which were read as accepted: {with_and(kept)}.")
        if self.comments:
            where = "stands where it is made" if self.comments == 1 else "stand where they are made"
            notes.append(f"{name} has {counted(self.comments, 'comment')}: [comment …] {where}.")
        if self.prompts:
            said = "1 field that is not filled in; its prompt stands in [ ]."
            many = f"{self.prompts:,} fields that are not filled in; their prompts stand in [ ]."
            notes.append(f"{name} has {said if self.prompts == 1 else many}")
        if lacks := self.lacks():
            notes.append(f"not read of {name}: {with_and(lacks)}.")
        return notes
