"""The commands' options, one file a command. What they do is in the packages they import when they run."""
