"""What figures must hold to, whatever they show."""

from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text


def check_texts(figure: Figure, monkeypatch) -> str:
    """Every text is large enough, whole, and overlaps no other; returns all of them in one line."""
    figure.draw_without_rendering()  # lays the figure out
    asked = []
    monkeypatch.setattr(Text, "draw", lambda self, renderer: asked.append(self))
    figure.canvas.draw()
    drawn = [text for text in asked if text.get_visible() and text.get_text()]
    texts = [(text.get_text(), text.get_window_extent()) for text in drawn]
    width, height = figure.canvas.get_width_height()
    for words, box in texts:
        assert -1 <= box.x0 < box.x1 <= width + 1, words
        assert -1 <= box.y0 < box.y1 <= height + 1, words
    for (words, box), (others, beside) in combinations(texts, 2):
        assert not box.overlaps(beside), (words, others)
    assert all(text.get_fontsize() >= 9 for text in drawn)
    return " ".join(words for words, _ in texts)
