"""Programs that work on the project itself: start it, check it, vendor its assets."""
