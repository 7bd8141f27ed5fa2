"""The matchers that come with txmux: one protocol a file."""
