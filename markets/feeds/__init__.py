"""What live feeds share: a connection kept open, bars closed once, the state of the line."""
