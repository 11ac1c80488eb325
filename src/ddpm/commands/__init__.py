"""What a user can type after `ddpm`: each module has `main(argv)`, which returns the exit code."""
