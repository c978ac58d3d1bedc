"""What goes wrong on real machines, done on purpose to real runs. ``make fault-tests`` does all of it."""
