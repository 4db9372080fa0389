"""What a run may take and what it has taken: prices, the meter, and when to stop taking trials."""
