"""What arrives from outside: strangers' folders, pictures, names, machines and files, one file for each kind."""
