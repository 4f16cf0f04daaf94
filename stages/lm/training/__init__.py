"""The one training loop and its parts, and the forecast of how long a training takes."""
