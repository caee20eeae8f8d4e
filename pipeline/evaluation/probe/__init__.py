"""Linear probes on upsampled features, as the papers on feature upsampling judge them."""
