"""Reading wheels strictly."""
