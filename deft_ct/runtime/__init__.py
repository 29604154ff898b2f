"""Services that know nothing of images: seeds, progress, atomic files, intervals."""
