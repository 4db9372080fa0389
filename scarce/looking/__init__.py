"""Pictures to look at before a search: films by finding, views by strength, and how far two hospitals are apart."""
