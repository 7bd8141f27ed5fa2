"""What is given to others: packages and images, built, installed and run."""
