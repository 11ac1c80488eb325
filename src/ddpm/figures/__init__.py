"""What a checkpoint can show: from a reverse process to pictures, one function per figure."""
