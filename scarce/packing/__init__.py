"""How many trials at once, and with which batch, give the most trials an hour on one device."""
