"""The networks and the maths around them. To read in this order:

- `presets`, `protocols`: which trained models there are, and how a data set is scored.
- `images`, `vocabulary`: a picture of any kind, and the words that a user wants found in it.
- `device`; `weight_files`, `weights`: where to compute; files and downloads, names -> networks.
- `text`, `clip_dense`, `backbones`: words and patches as vectors of one space.
- `windows`: an image larger than CLIP's input, window by window.
- `upsamplers`: from patches to pixels, behind one interface; a row each in `upsamplers.registry`.
- `loftup`, `anyup`, `naf`: the trained ones. `strips`: large images made a few rows at a time.
- `scoring`, `pamr`: scores of words -> probabilities of classes -> labels.
- `sclip_segmentor`, `loftup_sclip_segmentor`: all of this, image and words in, dense map out.
- `sam2_networks`, `sam2_masks`: SAM 2, from clicks to masks.

Nothing here knows of `pipeline`.
"""
