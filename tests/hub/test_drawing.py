import math

from services.hub.initiatives.drawing import GAP, HEIGHT, WIDTH, label_spots, outline, point, spread


def test_the_map_is_as_the_country_lies():
    groningen, maastricht, middelburg = point(53_219_000, 6_567_000), point(50_851_000, 5_691_000), point(51_499_000, 3_611_000)
    assert groningen[1] < middelburg[1] < maastricht[1]
    assert middelburg[0] < maastricht[0] < groningen[0]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in (groningen, maastricht, middelburg))
    # 264 km as the crow flies; the drawing has about 2.17 units to the kilometre.
    assert math.isclose(math.dist(groningen, maastricht) / (WIDTH / 277), 270, rel_tol=0.05)


def test_a_place_abroad_is_not_on_the_map():
    assert point(0, 0) is None
    assert point(52_000_000, 90_000_000) is None


def test_the_outline_is_closed_rings():
    path = outline()
    assert path == "" or (path.startswith("M") and path.endswith("Z") and path.count("M") == path.count("Z"))


def test_marks_of_one_place_do_not_hide_each_other():
    placed = spread([(100.0, 100.0)] * 40)
    assert placed[0] == (100.0, 100.0)
    assert all(math.dist(one, other) >= GAP - 0.2 for i, one in enumerate(placed) for other in placed[:i])


def test_more_marks_than_room_still_end():
    assert len(spread([(5.0, 5.0)] * 600)) == 600


def test_names_of_neighbouring_towns_do_not_stand_on_each_other():
    marks = spread([(200.0, 200.0)] * 12 + [(230.0, 205.0)] * 8)
    (x1, y1), (x2, y2) = label_spots([((200.0, 200.0), "Lelystad"), ((230.0, 205.0), "Dronten")], marks)
    assert abs(y1 - y2) >= 15 or abs(x1 - x2) >= 60
