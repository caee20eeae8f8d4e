"""Networks that give every patch of an image a vector: CLIP, and any ViT of timm."""
