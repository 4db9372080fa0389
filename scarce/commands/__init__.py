"""The subcommands of `scarce`, a file each; what one needs is imported when it runs, as `--help` shall be quick."""
