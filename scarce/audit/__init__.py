"""Anatomy or shortcut: what a result rests on, audit by audit."""
