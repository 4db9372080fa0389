"""What a run says of itself: lines while it runs, tables when it is done."""
