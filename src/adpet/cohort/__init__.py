"""Who was scanned: collections of scans, the phantom cohort, and who is trained, validated and tested on."""
