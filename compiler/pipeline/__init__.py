"""What a pass is, how passes run one after another, who watches them, and what they may use."""
