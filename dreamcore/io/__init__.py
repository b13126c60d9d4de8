"""What the operating system is asked for: bytes of files, room on the disk, other processes."""
