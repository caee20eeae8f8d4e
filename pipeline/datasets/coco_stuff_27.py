"""The 27 coarse classes of COCO-Stuff (Caesar et al., CVPR 2018), its supercategories.

Those, and their order, by which unsupervised segmentation and feature upsampling are judged (PiCIE,
STEGO, FeatUp, LoftUp).
"""

# Coarse class -> its numbers in the raw label maps ("stuffthingmaps"): the category's id less 1.
# Numbers of categories that no image has are with their supercategory.
COCO_STUFF_27: dict[str, tuple[int, ...]] = {
    "electronic": (*range(71, 77),),
    "appliance": (*range(77, 83),),
    "food": (*range(51, 61),),
    "furniture": (*range(61, 71),),
    "indoor": (*range(83, 91),),
    "kitchen": (*range(43, 51),),
    "accessory": (*range(25, 33),),
    "animal": (*range(15, 25),),
    "outdoor": (*range(9, 15),),
    "person": (0,),
    "sports": (*range(33, 43),),
    "vehicle": (*range(1, 9),),
    "ceiling": (101, 102),
    "floor": (100, 113, 114, 115, 116, 117),
    "food-stuff": (120, 121, 152, 169),
    "furniture-stuff": (97, 106, 107, 109, 111, 122, 129, 132, 155, 160, 164),
    "rawmaterial": (99, 131, 138, 142),
    "textile": (91, 92, 103, 104, 108, 130, 136, 140, 151, 166, 167),
    "wall": (*range(170, 177),),
    "window": (179, 180),
    "building": (94, 95, 127, 150, 157, 165),
    "ground": (110, 124, 125, 135, 139, 143, 144, 146, 148, 153, 158),
    "plant": (93, 96, 118, 123, 128, 133, 141, 162, 168),
    "sky": (105, 156),
    "solid": (126, 134, 149, 159, 161, 181),
    "structural": (98, 112, 137, 145, 163),
    "water": (119, 147, 154, 177, 178),
}
