"""The Optuna study behind a search: what it is told, when it prunes, what it starts from and what it expects next."""
