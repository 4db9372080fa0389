"""What `scarce cluster check` looks at: one file for each kind of cluster file, and what they share in `common`."""
