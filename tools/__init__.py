"""Programs that work on the project itself: start, check, vendor."""
