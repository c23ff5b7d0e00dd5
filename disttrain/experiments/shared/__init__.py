"""What experiments share: runs, their data and their directory, and what a command line names."""
