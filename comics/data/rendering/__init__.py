"""What rendered pictures of people are made of: shapes, light, and a camera; for `comics.data.mini` and `comics.data.crowd`."""
