"""What people look at: figures in one style."""
