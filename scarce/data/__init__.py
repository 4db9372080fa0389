"""Hospital folders to Arrow: readers, conversion, the phantom hospitals and the patient split."""
