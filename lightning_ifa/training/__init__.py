"""The Lightning callback and what it needs of a trainer."""
