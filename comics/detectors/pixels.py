"""What pixels mean to a network: the mean and deviation that images are normalised with."""

PIXEL_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB, of images in [0, 1], as torchvision's weights expect
PIXEL_STD = (0.229, 0.224, 0.225)
