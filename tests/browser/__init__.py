"""The attention page in a real browser, without a screen."""
