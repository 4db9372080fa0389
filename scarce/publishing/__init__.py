"""What a finished run gives to others: its backbone in their libraries, its features, its scores."""
