"""What every log keeps, over all ways of delivery."""
