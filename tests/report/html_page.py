"""A page of a run as tests read it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Elements, and by section texts, cells of tables and items of lists; fails where tags don't match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.texts, self.rows, self.lists, self.images = [], [], {}, {}, {}, []
        self.section = "top"
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = attrs["id"]
        if tag == "tr":
            self.row = []
        if tag in ("td", "th"):
            self.row.append("")
        if tag in ("ul", "ol"):
            self.lists.setdefault(self.section, []).append([])
        if tag == "li":
            self.lists[self.section][-1].append("")
        if tag == "img":
            self.images.append((self.section, attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([" ".join(cell.split()) for cell in self.row])

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts[self.section] = self.texts.get(self.section, "") + data
        if "tr" in self.open:
            self.row[-1] += data
        if "li" in self.open:
            self.lists[self.section][-1][-1] += data
