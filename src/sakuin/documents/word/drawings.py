"""What stands in a paragraph beside letters: pictures, boxes with text, charts, embedded objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sakuin.documents.word.found import Found
from sakuin.documents.word.names import child, tag

_DRAWN = "urn:schemas-microsoft-com:office:office"


@dataclass
class Drawing:
    """words : of pictures, as the file describes them, and such that are drawn. boxes : elements that hold
    paragraphs."""

    words: list[str] = field(default_factory=list)
    boxes: list[Any] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.words or self.boxes)


def look_at(element: Any, found: Found) -> Drawing:
    """What is in a `w:drawing`, `w:pict` or `w:object`; what has no words is counted in `found`."""
    drawing = Drawing()
    _Looking(drawing, found, tag(element) == "w:object").at(element)
    return drawing


class _Looking:
    def __init__(self, drawing: Drawing, found: Found, is_object: bool) -> None:
        self._drawing, self._found, self._is_object = drawing, found, is_object

    def at(self, element: Any) -> None:
        name = tag(element)
        if name == "w:txbxContent":
            self._drawing.boxes.append(element)
            return
        if name == "mc:AlternateContent":
            option = child(element, "mc:Choice")
            self._children(child(element, "mc:Fallback") if option is None else option)
            return
        if name == "wp:docPr":
            self._describe(element.get("descr") or element.get("title"))
        elif name == "v:textpath":
            self._describe(element.get("string"))
        elif name == "v:shape":
            self._describe(element.get("alt"))
        elif name in ("a:blip", "v:imagedata") and not self._is_object:
            self._found.pictures += 1
        elif name == "c:chart":
            self._found.charts += 1
        elif name == "dgm:relIds":
            self._found.diagrams += 1
        elif element.tag == f"{{{_DRAWN}}}OLEObject":
            if (element.get("ProgID") or "").startswith("Equation"):
                self._found.equations += 1
            else:
                self._found.objects += 1
        elif name == "w:control":
            self._found.objects += 1
        self._children(element)

    def _children(self, element: Any) -> None:
        for each in [] if element is None else element:
            self.at(each)

    def _describe(self, words: str | None) -> None:
        said = " ".join((words or "").split())
        if said and f"[{said}]" not in self._drawing.words:
            self._drawing.words.append(f"[{said}]")
