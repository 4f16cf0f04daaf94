"""Training on more than one device: launch, collectives, sharding, storage."""
