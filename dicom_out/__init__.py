"""Results out: SEG, SR, their verification, and destinations. Encodes, decides nothing."""
