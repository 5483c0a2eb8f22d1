"""Parts that worker and housekeeper share: dependencies, final states, fence, offsets, reads."""
