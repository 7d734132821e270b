"""Track vectors judged on their own, without listens: what they tell, and what they survive."""
