"""What the circle learned, for others to use (R17, R18). Read `model`, then `actions`; `library` holds other towns' lessons."""
