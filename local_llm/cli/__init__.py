"""The command line: one file a group of commands, each importing what it needs in its body."""
