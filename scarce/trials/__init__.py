"""What a trial's folder says: its reports, the attempts at it, its failures, and whether it still moves."""
